// The access token: read from the address or from what a person pastes, kept for this browser tab only.
// Never in localStorage, never in an address: both outlive the tab and are seen by others.

const key = 'daos.token';

export type TabStorage = Pick<Storage, 'getItem' | 'setItem' | 'removeItem' | 'clear' | 'length'>;

/** The tab's own storage: it survives a reload. Where the browser refuses it, one that does not. */
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

/** Whether an address's fragment carries a token. */
export function carriesToken(fragment: string): boolean {
  return /^#(.*&)?token=/.test(fragment);
}

/** The token in `text`: the token itself, `Bearer …`, or the link that carries it. null where no header could carry it. */
export function tokenIn(text: string): string | null {
  const linked = /#(?:.*&)?token=([^&\s]*)/.exec(text)?.[1];
  const token = linked === undefined ? text.trim().replace(/^bearer\s+/i, '') : decoded(linked);
  return /^[\x21-\x7e]+$/.test(token) ? token : null;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text); // not as form data: a plus sign is a plus sign
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

/** Take the token out of the address bar, and out of the history with it, into `storage`. Returns the tab's token. */
export function takeToken(storage: TabStorage): string | null {
  if (!carriesToken(location.hash)) return recall(storage);
  const token = tokenIn(location.hash);
  history.replaceState(null, '', location.pathname + location.search);
  if (token === null) return recall(storage);
  remember(storage, token);
  return token;
}
