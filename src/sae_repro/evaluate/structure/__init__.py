"""Structure: how latents relate to each other, to concepts, to text and to the model's output."""
