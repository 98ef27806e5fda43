// Tasks of one operator on ONNX Runtime's threads, each thread with scratch memory of its own.

#pragma once

#include <atomic>
#include <cstdlib>

#include "interface.h"
#include "sizes.h"

// Memory aligned to 64 bytes, kept for the next call.
struct Scratch {
    void* memory = nullptr;
    size_t bytes = 0;
    ~Scratch() { std::free(memory); }
    // Null if there is not as much memory.
    void* of(Bytes wanted) {
        if (wanted.count > bytes || !memory) {
            std::free(memory);
            const Bytes blocks{wanted.count / 64 + 1};
            bytes = (blocks * 64).count;
            memory = bytes < SIZE_MAX ? std::aligned_alloc(64, bytes) : nullptr;
            if (!memory) bytes = 0;
        }
        return memory;
    }
};

// Runs task(number, scratch) for every number below `count`.
template <typename Task>
Status* run_tasks(const Node& node, const Context* context, int64_t count, Bytes scratch_bytes,
                  const Task& task) {
    struct Work {
        const Task& task;
        Bytes scratch_bytes;
        std::atomic<bool> out_of_memory;
    } work{task, scratch_bytes, {false}};
    const auto run = [](void* argument, size_t number) {
        static thread_local Scratch scratch;
        Work& work = *static_cast<Work*>(argument);
        if (void* memory = scratch.of(work.scratch_bytes))
            work.task(int64_t(number), memory);
        else
            work.out_of_memory = true;
    };
    Status* status =
        call<PARALLEL_FOR>(node.api, context, static_cast<void (*)(void*, size_t)>(run),
                           size_t(count), size_t(0), static_cast<void*>(&work));
    return status || !work.out_of_memory ? status : node.error("no memory for a task");
}
