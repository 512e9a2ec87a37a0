/** How far the pictures of several seeds differ: offered where several are asked for, and shown while it is not 0. */

import { SliderField } from "./plain.js";

export class SeedVarianceField extends SliderField {
  refresh() {
    super.refresh();
    const { num_images: pictures } = this.draft.values;
    // Whoever drags it to 0 keeps it under the finger.
    this.hidden = !(pictures > 1 || this.value || this.contains(document.activeElement));
  }
}

customElements.define("zt-seed-variance", SeedVarianceField);
