// The access token: read from the URL or from pasted text, and stored for this browser tab only.
// Never in localStorage and never in a URL: both outlive the tab and can be seen by others.

const key = 'daos.token';

export type TabStorage = Pick<Storage, 'getItem' | 'setItem' | 'removeItem' | 'clear' | 'length'>;

/** Returns the tab's sessionStorage, which survives a reload; if the browser denies it, storage in memory, which does not. */
export function tabStorage(): TabStorage {
  try {
    return window.sessionStorage;
  } catch {
    return inMemory();
  }
}

export function inMemory(): TabStorage {
  const kept = new Map<string, string>();
  return {
    getItem: (name) => kept.get(name) ?? null,
    setItem: (name, value) => void kept.set(name, value),
    removeItem: (name) => void kept.delete(name),
    clear: () => kept.clear(),
    get length() {
      return kept.size;
    },
  };
}

/** Whether the fragment of a URL contains a token. */
export function carriesToken(fragment: string): boolean {
  return /^#(.*&)?token=/.test(fragment);
}

/** Returns the token in `text`: the token itself, `Bearer …`, or a link that contains it. null if it is not valid in a header. */
export function tokenIn(text: string): string | null {
  const linked = /#(?:.*&)?token=([^&\s]*)/.exec(text)?.[1];
  const token = linked === undefined ? text.trim().replace(/^bearer\s+/i, '') : decoded(linked);
  return /^[\x21-\x7e]+$/.test(token) ? token : null;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text); // not as form data: a plus sign stays a plus sign
  } catch {
    return text;
  }
}

export function recall(storage: TabStorage): string | null {
  return storage.getItem(key);
}

export function remember(storage: TabStorage, token: string): void {
  storage.setItem(key, token);
}

export function forget(storage: TabStorage): void {
  storage.removeItem(key);
}

/** Moves the token from the address bar, and thereby from the history, into `storage`. Returns the tab's token. */
export function takeToken(storage: TabStorage): string | null {
  if (!carriesToken(location.hash)) return recall(storage);
  const token = tokenIn(location.hash);
  history.replaceState(null, '', location.pathname + location.search);
  if (token === null) return recall(storage);
  remember(storage, token);
  return token;
}
