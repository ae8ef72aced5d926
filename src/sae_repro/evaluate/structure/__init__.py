"""How latents divide concepts, what they say of text and of one another, what coding them costs."""
