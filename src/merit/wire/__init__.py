"""The contracts with the world: .proto files, the code generated from them, and the translation to the model."""
