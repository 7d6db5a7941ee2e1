"""A peer of an agent: JSON-RPC 1.0 over as many connections as come."""

import json
import threading


def serve(listener, result_of):
    """Answers each call on `listener`, in threads, with what result_of(method, param) gives."""

    def answer(connection):
        decoder, text = json.JSONDecoder(), ""
        while data := connection.recv(1 << 16):
            text += data.decode()
            while text.strip():
                try:
                    call, end = decoder.raw_decode(text.lstrip())
                except ValueError:
                    break
                text = text.lstrip()[end:]
                reply = {"id": call["id"], "error": None, "result": result_of(call["method"], call["params"][0])}
                connection.sendall(json.dumps(reply).encode() + b"\n")

    def accept():
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
