"""The labelled grammar of small stories: text whose every token's concepts are known."""
