// GraphiQL stores its tabs, and the active tab's texts once more, each at its own moment. A reload in between opens an extra tab
// with a mixture. Here the tabs are the truth and the copies are read from them. Pure.

import type { TabStorage } from './token.ts';

type Copy = 'query' | 'variables';

const copies: Partial<Record<string, Copy>> = { 'graphiql:query': 'query', 'graphiql:variables': 'variables' };

/** `storage` for GraphiQL, with the active tab's texts only where they belong: in the tabs. */
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
    return null; // nothing stored, or by another version: GraphiQL starts over too
  }
}
