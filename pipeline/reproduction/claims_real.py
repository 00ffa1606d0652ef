def e3_claims(results):
    return []


def e4_claims(results):
    return []
