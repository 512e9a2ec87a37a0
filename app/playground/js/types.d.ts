/** What the server answers and the page hands around; read by the type checker alone. */

import type { Api } from "./api.js";
import type { Draft } from "./draft.js";
import type { About } from "./elements/about.js";
import type { Compare } from "./elements/compare.js";
import type { Composer } from "./elements/composer.js";
import type { Gallery } from "./elements/gallery.js";
import type { Banner, Health } from "./elements/health.js";
import type { KeyDialog } from "./elements/key.js";
import type { Lightbox } from "./elements/lightbox.js";
import type { ModelChoice } from "./elements/model.js";
import type { Progress } from "./elements/progress.js";
import type { Recent } from "./elements/recent.js";
import type { Runner } from "./elements/runner.js";
import type { Stage } from "./elements/stage.js";
import type { ThemeSwitch } from "./elements/theme.js";

/** The body of a request. Integers that a number cannot hold are bigints. */
export type Values = Record<string, any>;

export interface Field {
  name: string;
  title: string;
  description: string;
  type: string;
  /** The values of an enum. */
  options?: string[];
  /** By option that lacks its weights: the command that fetches them, and their bytes. */
  unavailable: Record<string, { command: string; size: number }>;
  minimum?: number;
  maximum?: number;
  maxItems?: number;
  /** Those of an array's items. */
  fields?: Field[];
  required: boolean;
  initial?: unknown;
  example?: string;
}

export interface Model {
  id: string;
  name: string;
  fields: Field[];
  dialects: Dialect[];
}

/** How the clients of a dialect ask for a model: what they call it, and the route that answers. */
export interface Dialect {
  dialect: string;
  model: string;
  path: string;
}

export interface Seeded {
  seed?: number | bigint;
  seeds?: (number | bigint)[];
}

export interface Result extends Seeded {
  request_id: string;
  status: "in_queue" | "in_progress" | "succeeded" | "failed" | "cancelled";
  output?: { image?: string; images?: string[] };
  error?: { type: string; message: string };
  created_at: string;
  expires_at?: string;
  model_id: string;
  model?: string;
  expanded_prompt?: string;
  control_image?: string;
  strength?: number;
  controlnet?: string;
  loras?: { path?: string; name?: string; scale: number; matched: number; unmatched: number }[];
  timings?: Record<string, number>;
  warnings?: string[];
}

/** A request in the caller's list. */
export interface Entry extends Result {
  input?: Values;
}

export interface Status {
  request_id: string;
  status: "in_queue" | "in_progress" | "completed" | "cancelled";
  queue_position?: number;
  /** What the next to run waits for besides its turn. */
  note?: string;
  step?: number;
  total_steps?: number;
  eta_seconds?: number;
  preview?: string;
}

export interface Picture {
  url: string;
  /** The URL under which this page may load it. */
  shown: string;
  seed?: number | bigint;
}

/** A finished request as the stage shows it; `input` is null when it is not known. */
export interface Shown {
  result: Result;
  input: Values | null;
}

/** A request that this tab watches. `size` is that of the control image, when it is known. */
export interface Run {
  id: string;
  modelId: string;
  input: Values | null;
  size: Size | null;
}

/** Width and height in pixels. */
export type Size = [number, number];

export interface Context {
  api: Api;
  draft: Draft;
  /** The model and the body that Run would send. */
  target: () => { model: Model; values: Values };
}

declare global {
  interface Window {
    zturbo: {
      /** Answers that were asked for while the modules came, by path; each is taken once. */
      early: Record<string, Promise<Response> | undefined>;
      /** Says what is missing, and loads the page again once the server answers. */
      lost(sentence: string): void;
      /** The page is whole. */
      ready(): void;
    };
  }
  interface HTMLElementTagNameMap {
    "zt-about": About;
    "zt-banner": Banner;
    "zt-compare": Compare;
    "zt-composer": Composer;
    "zt-gallery": Gallery;
    "zt-health": Health;
    "zt-key": KeyDialog;
    "zt-lightbox": Lightbox;
    "zt-model": ModelChoice;
    "zt-progress": Progress;
    "zt-recent": Recent;
    "zt-runner": Runner;
    "zt-stage": Stage;
    "zt-theme": ThemeSwitch;
  }
}
