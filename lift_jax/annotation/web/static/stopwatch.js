/** Seconds for which a task was visible. */
export class Stopwatch {
  #seconds = 0;
  #since = null;

  constructor() {
    document.addEventListener('visibilitychange', () => {
      const {seconds} = this;
      this.restart(seconds);
    });
  }

  restart(seconds) {
    this.#seconds = seconds;
    this.#since = document.hidden ? null : performance.now();
  }

  get seconds() {
    if (this.#since === null) return this.#seconds;
    return this.#seconds + (performance.now() - this.#since) / 1000;
  }
}
