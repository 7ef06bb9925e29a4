"""Operations that networks call: convolutions, batch norm, pixels, chunks."""
