/** Fields that any schema may have: text, choice, switch, number, slider, and JSON for the rest. */

import { saying } from "../api.js";
import { h } from "../dom.js";
import { parse, stringify } from "../json.js";
import { Field } from "./field.js";
import { range } from "./range.js";
import { optionWord, titleOf } from "./words.js";

export class TextField extends Field {
  input = h("input", { type: "text" });

  build() {
    this.input.id = this.controlId;
    this.input.placeholder = this.field.example ?? "";
    this.input.addEventListener("input", () => {
      this.value = this.input.value;
    });
    this.append(...this.head(), this.input, this.fault);
  }

  refresh() {
    if (this.input.value !== (this.value ?? "")) this.input.value = this.value ?? "";
  }
}

/** One of an enum's values, as buttons side by side. */
export class ChoiceField extends Field {
  group = h("div", { class: "segments", role: "radiogroup" });
  /** @type {HTMLInputElement[]} */
  inputs = [];

  build() {
    this.inputs = this.options.map((option) =>
      h("input", {
        type: "radio",
        name: this.controlId,
        value: option,
        id: `${this.controlId}-${option}`,
        onchange: () => {
          this.value = option;
        },
      }),
    );
    this.group.setAttribute("aria-labelledby", `${this.controlId}-name`);
    const labels = this.inputs.map((input, index) => h("label", {}, input, this.option(this.options[index])));
    this.group.replaceChildren(...labels);
    this.append(...this.head("legend"), this.group, this.fault);
  }

  get options() {
    return this.field.options ?? [];
  }

  /**
   * What stands for an option.
   * @param {string} option
   */
  option(option) {
    return h("span", { title: option }, optionWord(this.field.name, option));
  }

  refresh() {
    for (const [index, input] of this.inputs.entries()) input.checked = this.options[index] === this.value;
  }
}

export class SwitchField extends Field {
  input = h("input", { type: "checkbox", role: "switch", class: "switch" });

  build() {
    this.input.id = this.controlId;
    this.input.addEventListener("change", () => {
      this.value = this.input.checked;
    });
    this.append(...this.head("label", this.input), this.fault);
  }

  refresh() {
    this.input.checked = Boolean(this.value);
  }
}

/** A number with both bounds. */
export class SliderField extends Field {
  build() {
    const { minimum = 0, maximum = 1, type } = this.field;
    const label = titleOf(this.field);
    this.range = range({ id: this.controlId, label, minimum, maximum, integer: type === "integer" }, (value) => {
      this.value = value;
    });
    this.append(...this.head("label", this.range.number), this.range.element, this.fault);
  }

  refresh() {
    this.range?.show(this.value ?? this.field.initial ?? this.field.minimum);
  }
}

export class NumberField extends Field {
  input = h("input", { type: "number" });

  build() {
    const { minimum, maximum, type } = this.field;
    const bounds = { step: type === "integer" ? "1" : "any", min: String(minimum ?? ""), max: String(maximum ?? "") };
    Object.assign(this.input, { id: this.controlId, ...bounds });
    this.input.addEventListener("input", () => {
      this.value = Number.isNaN(this.input.valueAsNumber) ? undefined : this.input.valueAsNumber;
    });
    this.append(...this.head(), this.input, this.fault);
  }

  refresh() {
    if (this.input.valueAsNumber !== this.value) this.input.value = this.value ?? "";
  }
}

/** What no other field can show. */
export class JsonField extends Field {
  input = h("textarea", { class: "code", rows: 3, spellcheck: false });

  build() {
    this.input.id = this.controlId;
    this.input.addEventListener("change", () => {
      try {
        this.value = this.input.value.trim() ? parse(this.input.value) : undefined;
      } catch (error) {
        this.draft.setFaults([[this.field.name, `Invalid JSON: ${saying(error)}`]]);
      }
    });
    this.append(...this.head(), this.input, this.fault);
  }

  refresh() {
    if (document.activeElement === this.input) return;
    this.input.value = this.value === undefined ? "" : stringify(this.value, 1);
  }
}

customElements.define("zt-text", TextField);
customElements.define("zt-choice", ChoiceField);
customElements.define("zt-switch", SwitchField);
customElements.define("zt-slider", SliderField);
customElements.define("zt-number", NumberField);
customElements.define("zt-json-field", JsonField);
