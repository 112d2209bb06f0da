export { buildImage, readImage, writeImage, type Image, type ImageManifest } from './image.js'
export type { Instance, LaunchOptions, Platform } from './platform.js'
export { SimulatedPlatform } from './simulated.js'
