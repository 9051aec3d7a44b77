// What the page carries, unpacked when it is needed.

const known = new Map();

/** Return the text of a chunk. */
export async function text(name) {
  const element = document.getElementById(`chunk-${name}`);
  const bytes = Uint8Array.from(atob(element.textContent), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

/** Return the value of a chunk, null where there is no such chunk; it is unpacked once. */
export async function chunk(name) {
  if (!document.getElementById(`chunk-${name}`)) return null;
  if (!known.has(name)) known.set(name, text(name).then(JSON.parse));
  return known.get(name);
}
