// GraphiQL with daos' documents, workers loaded from the server, and the schema explorer.

import 'graphiql/setup-workers/vite';
// Not graphiql/style.css: it includes Monaco's style sheet, which Monaco already loads (350 kB compressed).
import '@graphiql/react/style.css';
import 'graphiql/graphiql.css';
import '@graphiql/plugin-doc-explorer/style.css';
import '@graphiql/plugin-explorer/style.css';
import { explorerPlugin } from '@graphiql/plugin-explorer';
import { useGraphiQL, useGraphiQLActions } from '@graphiql/react';
import { GraphiQL, type GraphiQLProps } from 'graphiql';
import { useEffect, useState } from 'react';
import { documents } from './documents.ts';

// Without the history plugin: it stores headers and secret variables regardless of shouldPersistHeaders.
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
        storage={storage} // of this tab only: variables may be secret
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

/** Reports when the editors are ready. A tab that is selected earlier keeps the text of the previous one. */
function Editors({ onReady }: { onReady(ready: boolean): void }) {
  const ready = useGraphiQL((state) =>
    [state.queryEditor, state.variableEditor, state.headerEditor, state.responseEditor].every(Boolean),
  );
  useEffect(() => onReady(ready), [onReady, ready]);
  return null;
}

/** Updates the editors when the system switches between dark and light; GraphiQL checks only once, its style sheet always. */
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

/** Scrolls a growing log to its newest entry. */
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
