// A kernel that throws, and an ONNX Runtime that is too old: what comes back is always a status.

#include "interface.h"

#include <cstdio>
#include <cstring>
#include <stdexcept>

namespace {

const char* said = "";  // the last status

Status* create_status(int, const char* message) {
    static int status;
    said = message;
    return reinterpret_cast<Status*>(&status);
}

template <typename Exception>
[[noreturn]] void raise() {
    throw Exception();
}

struct Failure : std::runtime_error {
    Failure() : std::runtime_error("failed") {}
};

template <typename Exception, bool CREATED>
struct Throws : Node {
    static constexpr const char *NAME = "Throws", *PROVIDER = "CPUExecutionProvider";
    static constexpr Element ELEMENT = FLOAT;
    static constexpr size_t INPUTS = 1;
    Status* prepare(const void*) {
        if (!CREATED) raise<Exception>();
        return nullptr;
    }
    Status* compute(Context*) const { raise<Exception>(); }
};

const void* table[300];

const void* const* old_api(uint32_t version) { return version < API_VERSION ? table : nullptr; }

template <typename Exception, bool CREATED>
bool gives(const char* expected) {
    const Operator op = make<Throws<Exception, CREATED>>();
    void* kernel = nullptr;
    Status* status = op.create_with_status(&op, table, nullptr, &kernel);
    if (CREATED) {
        if (status || !kernel) return false;
        status = op.compute_with_status(kernel, nullptr);
        op.destroy(kernel);
    }
    return status && !std::strcmp(said, expected);
}

}  // namespace

Status* RegisterCustomOps(void* options, const ApiBase* base) {
    static const Operator op = make<Throws<Failure, true>>();
    return add_operators(options, base, {&op});
}

int main() {
    table[CREATE_STATUS] = reinterpret_cast<const void*>(create_status);
    const ApiBase base{old_api, nullptr};
    const bool refused = RegisterCustomOps(nullptr, &base) && std::strstr(said, "1.17 or newer");
    const bool caught = gives<std::bad_alloc, false>("no memory for an operator") &&
                        gives<std::bad_alloc, true>("no memory for an operator") &&
                        gives<Failure, false>("an operator failed") &&
                        gives<Failure, true>("an operator failed");
    std::printf("%s %s\n", refused ? "refused" : said, caught ? "caught" : said);
}
