// The page: asks for a token if there is none, otherwise shows GraphiQL.

import './main.css';
import type { Fetcher } from '@graphiql/toolkit';
import { lazy, StrictMode, Suspense, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { endpointOf } from './endpoint.ts';
import { createFetcher } from './fetcher.ts';
import { storedOnce } from './tabs.ts';
import { TokenForm } from './token-form.tsx';
import { carriesToken, forget, remember, tabStorage, takeToken } from './token.ts';

const endpoint = endpointOf(location.href);
const storage = tabStorage();
const graphiqlStorage = storedOnce(storage);
const initialToken = takeToken(storage);
const loading = import('./workbench.tsx'); // starts immediately, even while the form is open
const Workbench = lazy(() => loading);

interface Session {
  fetcher: Fetcher;
  refused: boolean;
}

function Page() {
  const [session, setSession] = useState<Session | null>(() => (initialToken === null ? null : open(initialToken)));

  function open(token: string): Session {
    const opened: Session = {
      fetcher: createFetcher(endpoint, token, () => {
        // A late response to an earlier token does not concern the current one.
        setSession((current) => (current?.fetcher === opened.fetcher ? { ...current, refused: true } : current));
      }),
      refused: false,
    };
    return opened;
  }

  return (
    <>
      {session && (
        <Suspense fallback={<p className="loading">Loading GraphiQL…</p>}>
          <Workbench fetcher={session.fetcher} storage={graphiqlStorage} onForget={forgetToken} />
        </Suspense>
      )}
      {(session === null || session.refused) && (
        <TokenForm
          refused={session !== null}
          onToken={(token) => {
            remember(storage, token);
            setSession(open(token));
          }}
          onClose={session && (() => setSession({ ...session, refused: false }))}
        />
      )}
    </>
  );
}

function forgetToken() {
  forget(storage);
  location.reload(); // closes its connections and clears the data that it has loaded
}

// Opening a link with a token in a tab that already shows this page changes only the fragment.
addEventListener('hashchange', () => {
  if (!carriesToken(location.hash)) return;
  takeToken(storage);
  location.reload();
});

const root = document.getElementById('root');
if (root) {
  createRoot(root).render(
    <StrictMode>
      <Page />
    </StrictMode>,
  );
}
