// GraphiQL shows only the last event of a subscription. To show a log as a whole, its entries are collected here. Pure.

interface Entry {
  sequence?: number;
}

interface Result {
  data?: unknown;
}

/** Returns a function that prepends the entries of earlier `runLog` events, up to the last `limit`; other events pass unchanged. */
export function collectRunLog<R extends Result>(limit = 1000): (result: R) => R {
  let entries: Entry[] = [];
  return (result) => {
    const event = (result.data as { runLog?: { entries?: Entry[] } } | null | undefined)?.runLog;
    if (!event || !Array.isArray(event.entries)) return result;
    const next = event.entries[0]?.sequence;
    // After a reconnect the server starts again at the cursor of the document.
    if (next !== undefined) entries = entries.filter(({ sequence }) => sequence !== undefined && sequence < next);
    entries = [...entries, ...event.entries].slice(-limit);
    return { ...result, data: { ...(result.data as object), runLog: { ...event, entries } } };
  };
}
