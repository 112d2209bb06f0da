/** What `npm run test:long` runs: tests too long for every commit. */
export default {
  files: ['dist/test/long/**/*.long.js'],
  workerThreads: false,
  concurrency: 2,
  timeout: '30m',
}
