/* The KV caches of a language model, and the attention over them, with every choice at run time.
 *
 * A model has layers of one or more kinds; those of a kind share heads, head size, window and method.
 * Each kind has an engine of the library: its type is chosen by name among those that were compiled.
 * Every function returns 0 or a code; instinfer_llm_error() then has the message. Calls on one model
 * must not run at the same time. */
#ifndef INSTINFER_LLM_H
#define INSTINFER_LLM_H

#include <stddef.h>
#include <stdint.h>

#ifndef INSTINFER_LLM_API /* set where the library is built: what it exports */
#define INSTINFER_LLM_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct instinfer_llm instinfer_llm; /* the caches of one model */
typedef uint32_t instinfer_llm_sequence;    /* one request: a number that open() or fork() gave */

enum {
  INSTINFER_LLM_OK = 0,
  INSTINFER_LLM_BAD_ARGUMENT = 1,     /* a name, shape, count or value outside its domain */
  INSTINFER_LLM_UNKNOWN_SEQUENCE = 2, /* never opened, or closed */
  INSTINFER_LLM_DRIVE_FULL = 3,       /* `bytes` of the configuration are used up */
  INSTINFER_LLM_IO_ERROR = 4,         /* the real drive refused, or a page of it is damaged */
  INSTINFER_LLM_OUT_OF_MEMORY = 5,
  INSTINFER_LLM_FAILED = 6 /* any other exception */
};

/* One layer. Layers with equal fields share an engine. */
typedef struct {
  int32_t q_heads;
  int32_t kv_heads;    /* divides q_heads */
  int32_t head_dim;    /* one of those that were compiled: instinfer_llm_formats() */
  uint32_t window;     /* newest tokens that a query sees; 0: all */
  float scale;         /* of the logits; 0: 1/sqrt(head_dim) */
  float soft_cap;      /* of the logits; 0: none */
  const char* method;  /* "dense", "sparf", ...: instinfer_llm_methods() */
  double budget;       /* share of K and V in (0, 1] that the method may want; dense ignores it */
  const char* settings; /* "local=0.25,keep_dims=0.5" over what the budget gives; NULL: none */
} instinfer_llm_layer;

typedef struct {
  int32_t layers;
  const instinfer_llm_layer* of_layer; /* [layers] */
  const char* storage;                 /* "fp32", "fp16", "bf16", "int8" */
  uint32_t context_tokens;             /* expected length of a sequence, for budgets that are counts */
  uint64_t bytes;                      /* of pages of each kind of layers; reserved, not taken */
  double rope_base;                    /* of the model's rotation, for streaming_llm; 0: none */
  int32_t threads;                     /* of attend, at least 1 */
  const char* drive;                   /* folder on a real drive for the pages; NULL: memory */
} instinfer_llm_config;

/* Rows of one sequence. Strides count elements; the dims of a head lie side by side. */
typedef struct {
  const void* data; /* [tokens, heads, head_dim] */
  int64_t token_stride;
  int64_t head_stride;
} instinfer_llm_rows;

enum { INSTINFER_LLM_FP32 = 0, INSTINFER_LLM_FP16 = 1, INSTINFER_LLM_BF16 = 2 };

/* The new tokens of one sequence in one layer, oldest first. */
typedef struct {
  instinfer_llm_sequence sequence;
  uint32_t tokens;
  instinfer_llm_rows k, v; /* [tokens, kv_heads, head_dim] */
  instinfer_llm_rows q;    /* [tokens, q_heads, head_dim] */
  float* out;              /* [tokens, q_heads, head_dim] without gaps; not of a prompt: may be NULL */
} instinfer_llm_tokens;

/* Counts of all calls since the model was made or instinfer_llm_reset_usage. */
typedef struct {
  uint64_t attends;       /* queries of one token in one layer, of decode calls */
  uint64_t timed_attends; /* those that the modelled clock has timed */
  /* of these attends */
  uint64_t pages_read;
  uint64_t array_bytes;   /* whole pages that were read */
  uint64_t wanted_bytes;  /* wanted entries of K and V, wherever they lie */
  uint64_t fast_bytes;    /* of them, those that the method keeps in fast memory */
  uint64_t summary_bytes; /* rows of summaries that were scored or folded */
  uint64_t dense_bytes;   /* K and V of all visible tokens */
  uint64_t wall_ns;       /* of the attends that are not timed: measured, */
  uint64_t processor_ns;  /* and the processor time of the calling thread */
  double attend_ns;       /* modelled, of the timed attends: on the paper's drive, */
  double attend_fast_ns;  /* and with an accelerator that is never the bottleneck */
  /* of appends */
  uint64_t written_bytes; /* programmed into flash */
  double append_ns;       /* modelled */
} instinfer_llm_usage;

/* Of this thread's last call that returned a code; "" before the first. */
INSTINFER_LLM_API const char* instinfer_llm_error(void);

/* What was compiled: "dense h2o ..." and "fp32:64 fp16:64 ...". */
INSTINFER_LLM_API const char* instinfer_llm_methods(void);
INSTINFER_LLM_API const char* instinfer_llm_formats(void);
INSTINFER_LLM_API const char* instinfer_llm_target(void); /* SIMD target of the kernels */

INSTINFER_LLM_API int instinfer_llm_create(const instinfer_llm_config* config, instinfer_llm** model);
INSTINFER_LLM_API void instinfer_llm_destroy(instinfer_llm* model); /* NULL is allowed */

INSTINFER_LLM_API int instinfer_llm_open(instinfer_llm* model, instinfer_llm_sequence* sequence);
INSTINFER_LLM_API int instinfer_llm_fork(instinfer_llm* model, instinfer_llm_sequence from,
                       instinfer_llm_sequence* sequence);
INSTINFER_LLM_API int instinfer_llm_truncate(instinfer_llm* model, instinfer_llm_sequence sequence, uint64_t tokens);
INSTINFER_LLM_API int instinfer_llm_close(instinfer_llm* model, instinfer_llm_sequence sequence);
/* Tokens of a layer of a sequence. */
INSTINFER_LLM_API int instinfer_llm_length(instinfer_llm* model, instinfer_llm_sequence sequence, int32_t layer,
                         uint64_t* tokens);

/* A prompt, or its next part: appends k and v, teaches methods that learn from past queries, and
 * builds the index of methods that need one. K, v and q have elements of `type`. If `out` is given,
 * it gets the exact attention of the queries. */
INSTINFER_LLM_API int instinfer_llm_prefill(instinfer_llm* model, int32_t layer, int32_t type, size_t batch,
                          const instinfer_llm_tokens* rows);
/* Steps of decoding: each token is appended, and its query attends by the method. With more than one
 * token a sequence, the results are those of one call for each token. `timed`: the modelled clock
 * times these attends. */
INSTINFER_LLM_API int instinfer_llm_decode(instinfer_llm* model, int32_t layer, int32_t type, size_t batch,
                         const instinfer_llm_tokens* rows, int32_t timed);

INSTINFER_LLM_API int instinfer_llm_get_usage(const instinfer_llm* model, instinfer_llm_usage* usage);
INSTINFER_LLM_API void instinfer_llm_reset_usage(instinfer_llm* model);

#ifdef __cplusplus
}
#endif
#endif
