/** Answers on their way: kept in this browser until the server confirms them.
 *
 * Each has an id of its own, so that the server counts it once however often it
 * is sent.
 */

import {Refused, persist} from './api.js';
import * as storage from './storage.js';

/** Sends an answer until the server has decided.
 *
 * @param {{id: string}} answer that may have been sent before.
 * @param {(message: string) => void} onWaiting is told why it is sent again.
 * @throws {Refused} the server does not want it.
 */
export async function deliver(answer, onWaiting) {
  const key = `unsent/${answer.id}`;
  storage.write(key, answer);
  try {
    await persist('/api/answers', answer, onWaiting);
  } catch (error) {
    // 403: another person has opened a link in this browser.
    if (error instanceof Refused && error.status !== 403) storage.remove(key);
    throw error;
  }
  storage.remove(key);
}

/** Sends what an earlier visit left; returns how many were confirmed. */
export async function deliverUnsent(onWaiting) {
  let count = 0;
  for (const key of storage.keys('unsent/')) {
    try {
      await deliver(storage.read(key), onWaiting);
      count += 1;
    } catch (error) {
      // Its draft comes up again with the clip.
      if (!(error instanceof Refused)) throw error;
    }
  }
  return count;
}
