// GraphiQL shows the last event of a subscription only. A log is to be read as a whole, so its entries are collected here. Pure.

interface Entry {
  sequence?: number;
}

interface Result {
  data?: unknown;
}

/** A function that gives each `runLog` event the entries of those before it, the last `limit` of them; others pass unchanged. */
export function collectRunLog<R extends Result>(limit = 1000): (result: R) => R {
  let entries: Entry[] = [];
  return (result) => {
    const event = (result.data as { runLog?: { entries?: Entry[] } } | null | undefined)?.runLog;
    if (!event || !Array.isArray(event.entries)) return result;
    const next = event.entries[0]?.sequence;
    // After a reconnect the server starts over at the cursor.
    if (next !== undefined) entries = entries.filter(({ sequence }) => sequence !== undefined && sequence < next);
    entries = [...entries, ...event.entries].slice(-limit);
    return { ...result, data: { ...(result.data as object), runLog: { ...event, entries } } };
  };
}
