/** What the files were called that this browser sent to the server, by the URL that each has there. */

const SAVED = "zturbo.files";
const MOST = 50;

/** @typedef {{name: string, size: number}} FileFacts */

/** @returns {[string, FileFacts][]} */
function saved() {
  try {
    return JSON.parse(localStorage.getItem(SAVED) ?? "[]");
  } catch {
    return [];
  }
}

/**
 * @param {string} url
 * @param {File} file
 */
export function remember(url, { name, size }) {
  const others = saved().filter(([each]) => each !== url);
  localStorage.setItem(SAVED, JSON.stringify([[url, { name, size }], ...others].slice(0, MOST)));
}

/**
 * @param {string} url
 * @returns {FileFacts | undefined}
 */
export const fileOf = (url) => saved().find(([each]) => each === url)?.[1];

/**
 * "1.2 MB".
 * @param {number} bytes
 */
export function inBytes(bytes) {
  if (bytes < 1e6) return `${Math.max(1, Math.round(bytes / 1e3))} kB`;
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}
