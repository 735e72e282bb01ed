"""`Api`: a Kubernetes API server over HTTPS that knows one RayCluster and its pods, as far as Ray's autoscaler asks."""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from benchmarks.kubernetes_parts.pods import NAMESPACE, Kubelet


class Api:
    """Answers GET of the cluster and of its pods, and PATCH of the cluster, for `ray kuberay-autoscaler`."""

    def __init__(self, kubelet: Kubelet, folder: Path) -> None:
        """`folder`: for the certificate and its key."""
        self.kubelet = kubelet
        self.patches: list[tuple[float, list[dict[str, Any]]]] = []  # time, operations
        self.unknown: list[str] = []  # requests that it had no answer to
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"
        make_certificate(self.certificate, self.key)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def environment(self) -> dict[str, str]:
        """Variables by which the autoscaler finds this server."""
        return {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT_HTTPS": str(self._server.server_address[1]),
            "RAY_KUBERAY_CA_CERT_PATH": str(self.certificate),
            "RAY_KUBERAY_CLIENT_CERT_PATH": str(self.certificate),
            "RAY_KUBERAY_CLIENT_KEY_PATH": str(self.key),
            "RAY_HEAD_POD_NAME": self.kubelet.head_name,
        }

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def get(self, path: str) -> dict[str, Any] | None:
        kubelet = self.kubelet
        with kubelet.lock:
            if path == f"/apis/ray.io/v1/namespaces/{NAMESPACE}/rayclusters/{kubelet.name}":
                return kubelet.cluster
            pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
            if path == pods:
                items = [pod.object() for pod in kubelet.pods.values()]
                return {"kind": "PodList", "metadata": {"resourceVersion": str(kubelet.version)}, "items": items}
            pod = kubelet.pods.get(path.removeprefix(f"{pods}/"))
            return None if pod is None else pod.object()

    def patch(self, operations: list[dict[str, Any]]) -> dict[str, Any]:
        """Applies a JSON patch to the cluster -> the cluster."""
        with self.kubelet.lock:
            self.patches.append((time.time(), operations))
            for operation in operations:
                node: Any = self.kubelet.cluster
                *parents, last = operation["path"].strip("/").split("/")
                for part in parents:
                    node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
                node[last] = operation["value"]
            self.kubelet.version += 1
            return self.kubelet.cluster

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None: ...

            def do_GET(self) -> None:
                self.answer(api.get(urlparse(self.path).path))

            def do_PATCH(self) -> None:
                self.answer(api.patch(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

            def answer(self, body: dict[str, Any] | None) -> None:
                if body is None:
                    api.unknown.append(f"{self.command} {self.path}")
                data = json.dumps(body or {}).encode()
                self.send_response(200 if body is not None else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        return Handler


def make_certificate(certificate: Path, key_file: Path) -> None:
    """A certificate of 127.0.0.1 for a day, signed by itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - day).not_valid_after(now + day)
    builder = builder.add_extension(address, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    signed = builder.sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    certificate.write_bytes(signed.public_bytes(pem))
    key_file.touch(mode=0o600)
    key_file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
