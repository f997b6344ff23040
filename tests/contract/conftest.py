import pytest

pytest.register_assert_rewrite("kv_contract", "log_contract")
