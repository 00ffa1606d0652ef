/* A CUDA runtime that has devices and does nothing: PyTorch asks it about streams and events; all numbers are computed
   on the CPU (emulated_cuda.py). Preloaded, and the driver as well, by its name:
   cc -shared -fPIC -Wl,-soname,libcuda.so.1 -o cuda_runtime.so cuda_runtime.c */
#include <stdlib.h>
#include <string.h>

static __thread int current = 0;

#define DOES_NOTHING(name, ...) \
    int name(__VA_ARGS__) { return 0; }
#define MAKES(name, ...) \
    int name(void **made, ##__VA_ARGS__) { return *made = malloc(16), 0; }
#define IS_NOT_CAPTURING(name, ...) \
    int name(void *stream, int *status, ##__VA_ARGS__) { return *status = 0; }

int cudaGetDeviceCount(int *count) {
    const char *given = getenv("EMULATED_GPUS");
    return *count = given ? atoi(given) : 1, 0;
}
int cudaGetDevice(int *device) { return *device = current, 0; }
int cudaSetDevice(int device) { return current = device, 0; }
DOES_NOTHING(cudaInitDevice, int device, unsigned flags, unsigned more)
int cudaDeviceGetAttribute(int *value, int attribute, int device) { return *value = attribute == 75 ? 9 : 0, 0; }
int cudaDeviceCanAccessPeer(int *can, int device, int peer) { return *can = 0; }
int cudaDeviceGetPCIBusId(char *text, int size, int device) { return strncpy(text, "0000:00:00.0", size), 0; }
int cudaDeviceGetStreamPriorityRange(int *least, int *most) {
    if (least) *least = 0;
    if (most) *most = -5;
    return 0;
}
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { return *flags = 0, *active = 1, 0; }
int cudaDriverGetVersion(int *version) { return *version = 13000, 0; }
int cudaRuntimeGetVersion(int *version) { return *version = 13000, 0; }
int cudaMemGetInfo(size_t *left, size_t *total) { return *left = *total = 80ULL << 30, 0; }
DOES_NOTHING(cudaDeviceSynchronize, void)
DOES_NOTHING(cudaGetLastError, void)
DOES_NOTHING(cudaPeekAtLastError, void)
DOES_NOTHING(cudaThreadExchangeStreamCaptureMode, int *mode)

MAKES(cudaStreamCreateWithPriority, unsigned flags, int priority)
MAKES(cudaStreamCreateWithFlags, unsigned flags)
DOES_NOTHING(cudaStreamDestroy, void *stream)
DOES_NOTHING(cudaStreamSynchronize, void *stream)
DOES_NOTHING(cudaStreamQuery, void *stream)
DOES_NOTHING(cudaStreamWaitEvent, void *stream, void *event, unsigned flags)
IS_NOT_CAPTURING(cudaStreamIsCapturing)
IS_NOT_CAPTURING(cudaStreamGetCaptureInfo, void *a, void *b, void *c, void *d, void *e)
IS_NOT_CAPTURING(cudaStreamGetCaptureInfo_v2, void *a, void *b, void *c, void *d)
IS_NOT_CAPTURING(cudaStreamGetCaptureInfo_v3, void *a, void *b, void *c, void *d, void *e)

MAKES(cudaEventCreate)
MAKES(cudaEventCreateWithFlags, unsigned flags)
DOES_NOTHING(cudaEventDestroy, void *event)
DOES_NOTHING(cudaEventRecord, void *event, void *stream)
DOES_NOTHING(cudaEventRecordWithFlags, void *event, void *stream, unsigned flags)
DOES_NOTHING(cudaEventQuery, void *event)
DOES_NOTHING(cudaEventSynchronize, void *event)
int cudaEventElapsedTime(float *time, void *from, void *to) { return *time = 1, 0; }
