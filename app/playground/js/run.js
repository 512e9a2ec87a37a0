/** One request from Run to its end. */

import { follow } from "./events.js";

/** Fires nothing; `run` and `resume` resolve to the result body, and call `onstatus` on the way. */
export class Run {
  constructor(api, { onstatus, onsubmitted }) {
    this.api = api;
    this.onstatus = onstatus;
    this.onsubmitted = onsubmitted;
    this.requestId = null;
    this.stopping = false;
  }

  async submit(modelId, values) {
    const submitted = await this.api.post(`v1/models/${modelId}`, values);
    this.onsubmitted(submitted);
    // Stop was pressed while the request was on its way.
    if (this.stopping) await this.cancel(submitted.request_id);
    return this.resume(submitted.request_id);
  }

  async resume(requestId) {
    this.requestId = requestId;
    for await (const status of follow(this.api, requestId)) {
      if (status.result) return status.result;
      this.onstatus(status);
    }
    return null;
  }

  async stop() {
    this.stopping = true;
    if (this.requestId) await this.cancel(this.requestId);
  }

  cancel(requestId) {
    return this.api.json("POST", `v1/requests/${requestId}/cancel?force=true`);
  }
}
