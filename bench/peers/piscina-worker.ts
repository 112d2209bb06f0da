const echo = (bytes: Uint8Array): Uint8Array => bytes
export default echo
