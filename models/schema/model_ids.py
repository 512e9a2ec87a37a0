"""The ids that the endpoints have at the hosted service, and here."""

TURBO = "tongyi-mai/z-image/turbo"
TURBO_LORA = f"{TURBO}/lora"
CONTROLNET = f"{TURBO}/controlnet"
CONTROLNET_LORA = f"{TURBO}/controlnet/lora"
