"""What the integration tests share: a gateway to test, clients byte by byte, servers and resolvers to put behind it."""
