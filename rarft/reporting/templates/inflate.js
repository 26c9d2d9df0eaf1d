// Returns the text of a compressed block of the page: base64 of gzip in a script element.
async function inflate(id) {
  const base64 = document.getElementById(id).textContent;
  const bytes = Uint8Array.fromBase64?.(base64) ?? Uint8Array.from(atob(base64), character => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))).text();
}
