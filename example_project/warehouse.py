"""A stand-in for the warehouse, a computer that is not ours: ``python warehouse.py [port]``.

``PUT /reservations/<order>`` sets an order aside and answers with the shelf. When the warehouse hears of an order for
the first time it is busy and answers 503; asked again, it does it. To reserve an order twice changes nothing, because
deliveries can come twice.
"""

import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Warehouse(BaseHTTPRequestHandler):
    heard_of: set[str] = set()

    def do_PUT(self) -> None:
        if self.path in self.heard_of:
            self.answer(HTTPStatus.OK, f"shelf {self.path.rpartition('/')[2]}")
        else:
            self.heard_of.add(self.path)
            self.answer(HTTPStatus.SERVICE_UNAVAILABLE, "busy, ask again")

    def answer(self, status: HTTPStatus, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8001
    print(f"The warehouse listens on http://127.0.0.1:{port}", flush=True)
    ThreadingHTTPServer(("127.0.0.1", port), Warehouse).serve_forever()
