// The dialog that asks for an access token, on top of everything else.

import { type FormEvent, useEffect, useRef, useState } from 'react';
import { tokenIn } from './token.ts';

interface Props {
  refused: boolean;
  onToken(token: string): void;
  onClose: (() => void) | null; // null: the form cannot be closed without a token
}

export function TokenForm({ refused, onToken, onClose }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [problem, setProblem] = useState(refused ? 'The server did not accept the token.' : '');

  useEffect(() => {
    if (!dialog.current?.open) dialog.current?.showModal();
  }, []);

  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const token = tokenIn(String(new FormData(event.currentTarget).get('token')));
    if (token === null) setProblem('That is not a token: it has no spaces and no accented letters.');
    else onToken(token);
  }

  return (
    <dialog
      ref={dialog}
      className="token-form"
      aria-labelledby="token-form-title"
      onClose={onClose ?? (() => dialog.current?.showModal())} // Escape; preventing `cancel` works only the first time
    >
      <form onSubmit={submit}>
        <h1 id="token-form-title">daos</h1>
        <label htmlFor="token">Access token</label>
        <input
          id="token"
          name="token"
          type="password"
          autoComplete="off"
          spellCheck={false}
          autoFocus
          required
          aria-describedby="token-problem token-hint"
          aria-invalid={problem !== ''}
        />
        <p id="token-problem" role="alert">
          {problem}
        </p>
        <p id="token-hint">
          It is in the link that <code>daos serve</code> prints when it starts; <code>daos token</code> prints it again. The
          whole link will do. It is kept until this browser tab is closed.
        </p>
        <div className="token-form-buttons">
          {onClose && (
            <button type="button" onClick={onClose}>
              Not now
            </button>
          )}
          <button type="submit">Use token</button>
        </div>
      </form>
    </dialog>
  );
}
