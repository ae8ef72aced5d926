"""Training one sparse autoencoder: a library that stages use, and no stage itself."""
