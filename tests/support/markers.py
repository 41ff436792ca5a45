"""travis_time markers as a build script prints them."""

AT = 1_579_610_667_347_005_458


def start(timer: str) -> bytes:
    return f"travis_time:start:{timer}\r\x1b[0K".encode()


def end(timer: str, begun: int = AT, finished: int = AT + 5, more: str = "") -> bytes:
    fields = f"start={begun},finish={finished},duration={finished - begun}{more}"
    return f"travis_time:end:{timer}:{fields}\r\x1b[0K".encode()
