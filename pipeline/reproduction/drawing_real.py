def draw_e3(results):
    return {}


def draw_e4(results):
    return {}
