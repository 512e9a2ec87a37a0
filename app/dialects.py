"""What each endpoint is called in every dialect that answers for it, from the dialects' own catalogs."""

from app.fal.bodies import APP, MODELS, OWNER
from app.links import Links
from app.schemas import DialectBody
from models.schema.catalog import Endpoint


def dialects_of(endpoint: Endpoint, links: Links) -> list[DialectBody]:
    """RunComfy's first, in which every endpoint is called by its own id."""
    model_id = endpoint.model_id
    takes_image = "image_url" in endpoint.input_model.model_fields
    at_fal = [f"{OWNER}/{APP}/{name}" for name, model in MODELS.items() if model.answered_by == model_id]
    hub_path = f"/hf/{model_id}"
    return [
        DialectBody(dialect="RunComfy", model=model_id, path=f"/v1/models/{model_id}"),
        *(DialectBody(dialect="fal", model=name, path=f"/{name}") for name in at_fal),
        DialectBody(
            dialect="OpenAI",
            model=model_id,
            path=f"/v1/images/{'edits' if takes_image else 'generations'}",
        ),
        # Its clients are told a URL, and ask that.
        DialectBody(dialect="Hugging Face", model=f"{links.base}{hub_path}", path=hub_path),
    ]
