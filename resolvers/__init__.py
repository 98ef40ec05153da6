"""What the server can do.  A resolver is a plain function and one transaction; it knows no GraphQL.

It takes the database and its arguments, returns models, and raises the errors of `resolvers.errors`.
"""
