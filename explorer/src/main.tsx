// The page: asks for a token where there is none, shows GraphiQL where there is one.

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
const loading = import('./workbench.tsx'); // at once, also while the form is open
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
        // A late answer to an older token says nothing about the one in use.
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
  location.reload(); // closes its connections and clears what it brought onto the screen
}

// A link with a token, opened in a tab that shows this page already, changes the fragment only.
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
