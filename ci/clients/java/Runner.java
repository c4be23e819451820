import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** Runs the cases of a suite and prints a line for each: what the harness counts. It knows nothing of Kafka. */
final class Runner {
    private static final long CASE_SECONDS_MAX = 90;

    interface Case {
        void run() throws Exception;
    }

    private record Named(String name, Case body) {}

    private final List<Named> cases = new ArrayList<>();

    void add(String name, Case body) {
        cases.add(new Named(name, body));
    }

    /** Runs the cases whose name holds `only` (null: all) and returns the exit code. */
    int run(String only) {
        int failed = 0;
        int ran = 0;
        for (Named each : cases) {
            if (only != null && !each.name.contains(only)) {
                continue;
            }
            ran += 1;
            long started = System.nanoTime();
            Throwable error = failureOf(each.body);
            if (error == null) {
                System.out.printf("ok %s (%.1f s)%n", each.name, (System.nanoTime() - started) / 1e9);
            } else {
                failed += 1;
                System.out.printf("FAIL %s: %s%n", each.name, String.valueOf(error).replace('\n', ' '));
                error.printStackTrace();
            }
        }
        System.out.printf("ran %d%n", ran);
        return failed == 0 ? 0 : 1;
    }

    private static Throwable failureOf(Case body) {
        ExecutorService thread = Executors.newSingleThreadExecutor(task -> {
            Thread t = new Thread(task);
            t.setDaemon(true);
            return t;
        });
        Callable<Void> call = () -> {
            body.run();
            return null;
        };
        Future<Void> done = thread.submit(call);
        try {
            done.get(CASE_SECONDS_MAX, TimeUnit.SECONDS);
            return null;
        } catch (ExecutionException e) {
            return e.getCause();
        } catch (TimeoutException e) {
            done.cancel(true);
            return new AssertionError("not done after " + CASE_SECONDS_MAX + " s");
        } catch (InterruptedException e) {
            return e;
        } finally {
            thread.shutdown();
        }
    }

    static void check(boolean condition, String what) {
        if (!condition) {
            throw new AssertionError("not so: " + what);
        }
    }

    static void checkEqual(Object got, Object want, String what) {
        if (!Objects.equals(got, want)) {
            throw new AssertionError(what + ": got " + shorten(got) + ", want " + shorten(want));
        }
    }

    /** For what a broker may carry out behind its answer. */
    static void eventually(Callable<Object> call, Object want, String what) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(15);
        Object got = call.call();
        while (!Objects.equals(got, want) && System.nanoTime() < deadline) {
            Thread.sleep(100);
            got = call.call();
        }
        checkEqual(got, want, what);
    }

    /** Demands that `call` ends with this error of the broker, wrapped or not. */
    static void expectError(Class<? extends Throwable> kind, Callable<?> call) throws Exception {
        Object result;
        try {
            result = call.call();
        } catch (Exception e) {
            for (Throwable t = e; t != null; t = t.getCause()) {
                if (kind.isInstance(t)) {
                    return;
                }
            }
            throw e;
        }
        throw new AssertionError("no error, but " + shorten(result) + "; want " + kind.getSimpleName());
    }

    private static String shorten(Object value) {
        String text = String.valueOf(value);
        return text.length() < 300 ? text : text.substring(0, 300) + "...";
    }
}
