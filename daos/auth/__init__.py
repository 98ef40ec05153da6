"""Who asks: access tokens, and those of an OIDC issuer."""
