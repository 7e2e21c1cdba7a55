"""The suite's own markers: its modules can be imported here, where strict markers are on."""


def pytest_configure(config):
    config.addinivalue_line("markers", "needs(*needs): what the release must have (else na)")
    config.addinivalue_line("markers", "cuda(devices): runs real CUDA kernels (else skip)")
