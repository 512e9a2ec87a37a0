/** Fields that any schema may have: text, choice, switch, number, slider, and JSON for the rest. */

import { h } from "../dom.js";
import { Field } from "./field.js";
import { range } from "./range.js";

export class TextField extends Field {
  build() {
    this.input = h("input", { id: this.controlId, type: "text", placeholder: this.field.example ?? "" });
    this.input.addEventListener("input", () => (this.value = this.input.value));
    this.append(...this.head(), this.input, this.faultLine());
  }

  refresh() {
    if (this.input.value !== (this.value ?? "")) this.input.value = this.value ?? "";
  }
}

/** One of an enum's values, as buttons side by side. */
export class ChoiceField extends Field {
  build() {
    const inputs = this.field.options.map((option) =>
      h("input", {
        type: "radio",
        name: this.controlId,
        value: option,
        id: `${this.controlId}-${option}`,
        onchange: () => (this.value = option),
      }),
    );
    this.inputs = inputs;
    const group = h(
      "div",
      { class: "segments", role: "radiogroup", "aria-labelledby": `${this.controlId}-name` },
      ...inputs.map((input, index) => h("label", {}, input, h("span", {}, this.word(this.field.options[index])))),
    );
    this.append(...this.head("legend"), group, this.faultLine());
  }

  word(option) {
    return String(option);
  }

  refresh() {
    for (const [index, input] of this.inputs.entries()) input.checked = this.field.options[index] === this.value;
  }
}

export class SwitchField extends Field {
  build() {
    this.input = h("input", { id: this.controlId, type: "checkbox", role: "switch", class: "switch" });
    this.input.addEventListener("change", () => (this.value = this.input.checked));
    this.append(...this.head("label", this.input), this.faultLine());
  }

  refresh() {
    this.input.checked = Boolean(this.value);
  }
}

/** A number with both bounds. */
export class SliderField extends Field {
  build() {
    const { title, minimum, maximum, type } = this.field;
    const onchange = (value) => (this.value = value);
    this.range = range({ id: this.controlId, label: title, minimum, maximum, integer: type === "integer", onchange });
    this.append(...this.head("label", this.range.number), this.range.element, this.faultLine());
  }

  refresh() {
    this.range.show(this.value ?? this.field.initial ?? this.field.minimum);
  }
}

export class NumberField extends Field {
  build() {
    const { minimum, maximum, type } = this.field;
    this.input = h("input", {
      id: this.controlId,
      type: "number",
      step: type === "integer" ? 1 : "any",
      min: minimum ?? "",
      max: maximum ?? "",
    });
    this.input.addEventListener("input", () => {
      this.value = Number.isNaN(this.input.valueAsNumber) ? undefined : this.input.valueAsNumber;
    });
    this.append(...this.head(), this.input, this.faultLine());
  }

  refresh() {
    if (this.input.valueAsNumber !== this.value) this.input.value = this.value ?? "";
  }
}

/** What no other field can show. */
export class JsonField extends Field {
  build() {
    this.input = h("textarea", { id: this.controlId, class: "code", rows: 3, spellcheck: false });
    this.input.addEventListener("change", () => {
      try {
        this.value = this.input.value.trim() ? JSON.parse(this.input.value) : undefined;
      } catch (error) {
        this.draft.setFaults([[this.field.name, error.message]]);
      }
    });
    this.append(...this.head(), this.input, this.faultLine());
  }

  refresh() {
    if (document.activeElement !== this.input) this.input.value = this.value === undefined ? "" : JSON.stringify(this.value, null, 1);
  }
}

customElements.define("zt-text", TextField);
customElements.define("zt-choice", ChoiceField);
customElements.define("zt-switch", SwitchField);
customElements.define("zt-slider", SliderField);
customElements.define("zt-number", NumberField);
customElements.define("zt-json-field", JsonField);
