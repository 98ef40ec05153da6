// GraphiQL with daos's documents, its workers from the server's own files, and the schema explorer.

import 'graphiql/setup-workers/vite';
// Not graphiql/style.css: that has Monaco's style sheet in it, which comes with Monaco already (350 kB compressed).
import '@graphiql/react/style.css';
import 'graphiql/graphiql.css';
import '@graphiql/plugin-doc-explorer/style.css';
import '@graphiql/plugin-explorer/style.css';
import { explorerPlugin } from '@graphiql/plugin-explorer';
import { useGraphiQL, useGraphiQLActions } from '@graphiql/react';
import { GraphiQL, type GraphiQLProps } from 'graphiql';
import { useEffect, useState } from 'react';
import { documents } from './documents.ts';

// Without the history plugin: it keeps headers and secret variables, whatever shouldPersistHeaders says.
const plugins = [explorerPlugin()];

type Props = Required<Pick<GraphiQLProps, 'fetcher' | 'storage'>> & { onForget(): void };

export default function Workbench({ fetcher, storage, onForget }: Props) {
  const [ready, setReady] = useState(false);
  return (
    <div className="workbench" inert={!ready}>
      <GraphiQL
        fetcher={fetcher}
        plugins={plugins}
        defaultTabs={documents}
        defaultEditorToolsVisibility
        shouldPersistHeaders={false}
        storage={storage} // the tab's own: variables may be secret
      >
        <GraphiQL.Logo>
          <span className="brand">daos</span>
          <button type="button" className="forget" onClick={onForget}>
            Forget token
          </button>
        </GraphiQL.Logo>
        <Editors onReady={setReady} />
        <SystemTheme />
        <LogTail />
      </GraphiQL>
    </div>
  );
}

/** Says when the editors are there. A tab that is chosen before that keeps the text of the one that was left. */
function Editors({ onReady }: { onReady(ready: boolean): void }) {
  const ready = useGraphiQL((state) =>
    [state.queryEditor, state.variableEditor, state.headerEditor, state.responseEditor].every(Boolean),
  );
  useEffect(() => onReady(ready), [onReady, ready]);
  return null;
}

/** Keeps the editors in step when the system turns dark or light; GraphiQL asks once, its style sheet always. */
function SystemTheme() {
  const { setTheme } = useGraphiQLActions();
  const theme = useGraphiQL((state) => state.theme);
  useEffect(() => {
    const dark = matchMedia('(prefers-color-scheme: dark)');
    const apply = () => setTheme(theme);
    dark.addEventListener('change', apply);
    return () => dark.removeEventListener('change', apply);
  }, [setTheme, theme]);
  return null;
}

/** Keeps the newest entry of a log in view while it grows. */
function LogTail() {
  const editor = useGraphiQL((state) => state.responseEditor);
  useEffect(() => {
    const listener = editor?.onDidChangeModelContent(() => {
      const text = editor.getModel();
      if (text && text.getLineCount() > 3 && text.getLineContent(3).startsWith('    "runLog": {')) editor.revealLine(text.getLineCount());
    });
    return () => listener?.dispose();
  }, [editor]);
  return null;
}
