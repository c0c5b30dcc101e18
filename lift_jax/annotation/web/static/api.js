/** Requests to the server: JSON both ways. */

const csrfToken = document.querySelector('meta[name=csrf-token]').content;

/** The server has decided against the request; sending it again is no use. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** No decision: no connection, a full disk, a server that restarts. */
export class Unavailable extends Error {}

export async function post(path, body) {
  let response, reply;
  try {
    response = await fetch(path, {
      method: 'POST',
      headers: {'Content-Type': 'application/json', 'X-CSRF-Token': csrfToken},
      body: JSON.stringify(body),
    });
    reply = await response.json();
  } catch {
    throw new Unavailable('There is no connection to the server.');
  }
  if (response.ok) return reply;
  const again = response.status >= 500 || response.status === 429;
  throw again
    ? new Unavailable(reply.error)
    : new Refused(reply.error, response.status);
}

const LONGEST_WAIT = 15;  // seconds

/** Sends a request until the server has decided.
 *
 * @param {(message: string) => void} onWaiting is told why it is sent again.
 */
export async function persist(path, body, onWaiting) {
  for (let wait = 1; ; wait = Math.min(2 * wait, LONGEST_WAIT)) {
    try {
      return await post(path, body);
    } catch (error) {
      if (!(error instanceof Unavailable)) throw error;
      onWaiting(error.message);
      await pause(wait);
    }
  }
}

/** Waits some seconds, or until the browser is connected again. */
function pause(seconds) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, 1000 * seconds);
    window.addEventListener('online', done);
    function done() {
      clearTimeout(timer);
      window.removeEventListener('online', done);
      resolve();
    }
  });
}
