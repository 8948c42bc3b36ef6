// What the page asks of the router: three small questions a second while somebody looks, none while nobody does.

const PATIENCE_MS = 3000;

export class Gone extends Error {}

async function ask(path, headers = {}) {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), PATIENCE_MS);
  try {
    const answer = await fetch(path, { headers, signal: abort.signal, cache: "no-store", credentials: "same-origin" });
    if (answer.status === 304) return { same: true };
    if (answer.status === 404) throw new Gone(path);
    if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
    return { etag: answer.headers.get("ETag"), body: await answer.json() };
  } finally {
    clearTimeout(timer);
  }
}

const overviews = { path: "", etag: null, body: null };

/// One page of rows. An answer that has not changed is not sent again.
export async function overview({ search, offset, limit }) {
  const path = `/api/overview?search=${encodeURIComponent(search)}&offset=${offset}&limit=${limit}`;
  const known = overviews.path === path && overviews.etag !== null;
  const answer = await ask(path, known ? { "If-None-Match": overviews.etag } : {});
  if (answer.same) return overviews.body;
  Object.assign(overviews, { path, etag: answer.etag, body: answer.body });
  return answer.body;
}

/// Null when there is no such branch.
export async function status(branch) {
  try {
    const answer = await ask(`/api/status?branch=${encodeURIComponent(branch)}`);
    return answer.body.branches[branch] ?? null;
  } catch (error) {
    if (error instanceof Gone) return null;
    throw error;
  }
}

export async function events(after) {
  return (await ask(`/api/events?after=${after}&limit=500`)).body;
}
