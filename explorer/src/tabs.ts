// GraphiQL stores its tabs and, at another time, copies of the active tab's texts. A reload in between opens an extra tab with a
// mixture of both. Here the tabs are the source of truth, and the copies are read from them. Pure.

import type { TabStorage } from './token.ts';

type Copy = 'query' | 'variables';

const copies: Partial<Record<string, Copy>> = { 'graphiql:query': 'query', 'graphiql:variables': 'variables' };

/** Wraps `storage` for GraphiQL so that the active tab's texts are stored only in the tabs. */
export function storedOnce(storage: TabStorage): TabStorage {
  return {
    getItem(name) {
      const copy = copies[name];
      return copy ? activeText(storage.getItem('graphiql:tabState'), copy) : storage.getItem(name);
    },
    setItem(name, value) {
      if (!copies[name]) storage.setItem(name, value);
    },
    removeItem: (name) => storage.removeItem(name),
    clear: () => storage.clear(),
    get length() {
      return storage.length;
    },
  };
}

function activeText(state: string | null, copy: Copy): string | null {
  try {
    const { tabs, activeTabIndex } = JSON.parse(state ?? '');
    return tabs[activeTabIndex][copy] ?? null;
  } catch {
    return null; // nothing is stored, or by another version: GraphiQL resets too
  }
}
