"""Step 2: encode reference queries."""
