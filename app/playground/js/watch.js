/** The requests that this tab has sent: one is watched to its end, the rest wait their turn to be watched. */

import { isAbort } from "./api.js";
import { follow } from "./events.js";

/** @import {Api} from "./api.js" */
/** @import {Result, Run, Status} from "./types" */

/**
 * @typedef {object} Listener
 * @property {(run: Run) => void} begin the stage is this run's from now on
 * @property {(status: Status) => void} status
 * @property {(run: Run, result: Result) => void} end
 * @property {(error: unknown) => void} fault
 * @property {() => void} lost the server was not there for a moment
 * @property {() => void} idle nothing is watched any more
 */

export class Watch {
  /** @type {Run | null} */
  current = null;
  /** @type {Run[]} */
  next = [];
  leaving = new AbortController();

  /**
   * @param {Api} api
   * @param {Listener} listener
   */
  constructor(api, listener) {
    this.api = api;
    this.listener = listener;
  }

  /**
   * Watches a run that was just sent: at once, or after those that were sent before.
   * @param {Run} run
   */
  add(run) {
    if (this.current) this.next.push(run);
    else this.start(run);
  }

  /**
   * Watches this one now, and no other any more.
   * @param {Run} run
   */
  only(run) {
    this.leave();
    this.start(run);
  }

  /** Watches nothing; what runs goes on without. */
  leave() {
    this.leaving.abort();
    this.current = null;
    this.next = [];
    this.listener.idle();
  }

  /**
   * @param {Run} run
   * @param {boolean} quietly the picture before it stays until there is something to see of this one
   */
  async start(run, quietly = false) {
    this.current = run;
    this.leaving = new AbortController();
    const { signal } = this.leaving;
    let begun = !quietly;
    if (begun) this.listener.begin(run);
    try {
      for await (const { status, result } of follow(this.api, run.id, { signal, onlost: this.listener.lost })) {
        if (signal.aborted) return;
        // Stopped while it waited: what is on the stage stays.
        if (!begun && result?.status === "cancelled") continue;
        if (!begun && (result || status.step || status.preview)) {
          begun = true;
          this.listener.begin(run);
        }
        if (result) this.listener.end(run, result);
        else if (begun) this.listener.status(status);
      }
    } catch (error) {
      if (isAbort(error)) return;
      this.listener.fault(error);
    }
    const after = this.next.shift();
    if (after) {
      this.start(after, true);
      return;
    }
    this.current = null;
    this.listener.idle();
  }
}
