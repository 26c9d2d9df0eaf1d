"""Reference queries as embeddings: the sentence encoder, and the store of what it has encoded."""
